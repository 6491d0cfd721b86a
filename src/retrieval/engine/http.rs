//! Requests to a search engine: JSON in and out, with patience for an engine that is busy and none for one that refuses.
//!
//! An answer 429 or 5xx and a broken connection are tried again after a pause that doubles; any other answer that is no
//! success is an error at once, with the engine's own words, and so is a failure of TLS. Credentials come from the
//! environment alone:
//!
//! ```text
//! TLM_ENGINE_USER, TLM_ENGINE_PASSWORD     basic authentication
//! TLM_ENGINE_API_KEY                       Authorization: ApiKey ...
//! ```

use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;

use crate::retrieval::RetrievalError;

/// Attempts of a request before it is given up.
const ATTEMPTS: u32 = 6;

/// The longest wait for an answer: a batch of long queries over a large index.
const TIMEOUT: Duration = Duration::from_secs(600);

/// Bytes of an answer at most.
const MOST_BYTES: u64 = 1 << 30;

/// Words of an engine's refusal that are passed on.
const MOST_REASON: usize = 600;

/// A connection to an engine.
pub(super) struct Http {
    agent: ureq::Agent,
    /// Scheme, host, port and path before the index.
    base: String,
    authorization: Option<String>,
    /// The first pause.
    pause: Duration,
}

/// What is sent.
pub(super) enum Body<'a> {
    None,
    Json(&'a Value),
    /// Lines of JSON.
    Lines(String),
}

impl Http {
    pub(super) fn new(base: String, pause: Duration) -> Result<Http, RetrievalError> {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let user = (variable("TLM_ENGINE_USER"), variable("TLM_ENGINE_PASSWORD"));
        let authorization = match (variable("TLM_ENGINE_API_KEY"), user) {
            (Some(key), _) => Some(format!("ApiKey {key}")),
            (None, (Some(user), Some(password))) => Some(format!(
                "Basic {}",
                BASE64_STANDARD.encode(format!("{user}:{password}"))
            )),
            (None, (None, None)) => None,
            (None, _) => {
                let reason = "of TLM_ENGINE_USER and TLM_ENGINE_PASSWORD only one is set: set both or none";
                return Err(engine_error(&base, reason));
            }
        };
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(TIMEOUT))
            .build();
        Ok(Http {
            agent: config.into(),
            base,
            authorization,
            pause,
        })
    }

    /// The error of a request to this engine.
    pub(super) fn error(&self, reason: impl Into<String>) -> RetrievalError {
        engine_error(&self.base, reason)
    }

    /// The pause before attempt number `attempt` (from 1), or the error if there are to be no more.
    pub(super) fn wait(&self, attempt: u32, reason: &str) -> Result<(), RetrievalError> {
        if attempt >= ATTEMPTS {
            return Err(self.error(format!("given up after {ATTEMPTS} attempts: {reason}")));
        }
        std::thread::sleep(self.pause * (1 << (attempt - 1)));
        Ok(())
    }

    /// The answer to a request; GET without a body, POST with one.
    pub(super) fn call(&self, path: &str, body: &Body) -> Result<Value, RetrievalError> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            let reason = match self.attempt(path, body) {
                Ok((200..=299, answer)) => {
                    let parsed = serde_json::from_slice(&answer);
                    return parsed.map_err(|error| self.error(format!("{path}: the answer is no JSON: {error}")));
                }
                Ok((status, answer)) => {
                    let reason = format!("{path}: status {status}: {}", shortened(&answer));
                    if !is_passing(u64::from(status)) {
                        return Err(self.error(reason));
                    }
                    reason
                }
                Err(error) => {
                    let too_large = matches!(error, ureq::Error::BodyExceedsLimit(_));
                    let reason = match self.base.starts_with("https:") && !too_large {
                        true => format!("{path}: {error} (is there TLS, and a certificate that this machine trusts?)"),
                        false => format!("{path}: {error}"),
                    };
                    if is_final(&error) {
                        return Err(self.error(reason));
                    }
                    reason
                }
            };
            self.wait(attempt, &reason)?;
        }
    }

    fn attempt(&self, path: &str, body: &Body) -> Result<(u16, Vec<u8>), ureq::Error> {
        let url = format!("{}{path}", self.base);
        let authorization = self.authorization.as_deref();
        let mut response = match body {
            Body::None => {
                let request = self.agent.get(&url);
                let request = authorization
                    .into_iter()
                    .fold(request, |r, value| r.header("authorization", value));
                request.call()?
            }
            Body::Json(_) | Body::Lines(_) => {
                let (kind, bytes) = match body {
                    Body::Lines(lines) => ("application/x-ndjson", lines.clone()),
                    Body::Json(value) => ("application/json", value.to_string()),
                    Body::None => ("", String::new()),
                };
                let request = self.agent.post(&url).header("content-type", kind);
                let request = authorization
                    .into_iter()
                    .fold(request, |r, value| r.header("authorization", value));
                request.send(bytes.as_bytes())?
            }
        };
        let bytes = response.body_mut().with_config().limit(MOST_BYTES).read_to_vec()?;
        Ok((response.status().as_u16(), bytes))
    }
}

/// Whether a status may be another one a little later.
pub(super) fn is_passing(status: u64) -> bool {
    status == 429 || status >= 500
}

/// Whether a request that got no answer will not get one by trying again.
fn is_final(error: &ureq::Error) -> bool {
    use ureq::Error::{BadUri, BodyExceedsLimit, Io, Rustls, Tls, TooManyRedirects};
    match error {
        BadUri(_) | BodyExceedsLimit(_) | TooManyRedirects | Tls(_) | Rustls(_) => true,
        // What rustls makes of a certificate that is not trusted, and of a server without TLS.
        Io(error) => error.kind() == std::io::ErrorKind::InvalidData,
        _ => false,
    }
}

/// An error of an engine.
pub(super) fn engine_error(url: &str, reason: impl Into<String>) -> RetrievalError {
    RetrievalError::Engine {
        url: url.to_owned(),
        reason: reason.into(),
    }
}

fn shortened(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).chars().take(MOST_REASON).collect()
}
