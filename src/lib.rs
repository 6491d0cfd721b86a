//! `tlm`: text classifiers trained from scratch, without a pretrained language model.
//!
//! The method is task-driven language modeling (Yao, Zheng, Yang, Yang: NLP From Scratch Without Large-Scale Pretraining,
//! ICML 2022): the labelled texts of a small task query a general corpus by BM25; a BERT-like encoder trains on masked
//! tokens of the retrieved and the task's texts together with the task itself, and is then fine-tuned on the task alone.
//!
//! Rooms, from the bottom up; dependencies point down only:
//!
//! * [`rng`], [`kernel`], [`plan`], [`device`], [`ops`]: the engine. A model function runs once on a
//!   [`plan::Recorder`]; what remains is a flat list of launches over one arena, which a [`device`] replays.
//! * [`retrieval`], [`data`], [`hub`]: BM25 selection, texts to packed batches, Hugging Face's file layout.
//! * [`bert`], [`cost`], [`train`], [`tlm`]: the encoder and its heads, what they cost, the trainer, the method.
//! * [`report`], [`cli`]: what people see.
#![deny(missing_docs)]

pub mod atomic;
pub mod bert;
pub mod cli;
pub mod cost;
pub mod data;
pub mod device;
pub mod hub;
pub mod kernel;
pub mod ops;
pub mod plan;
pub mod report;
pub mod retrieval;
pub mod rng;
pub mod tlm;
pub mod train;
