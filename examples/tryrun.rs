fn main() {
    let args: Vec<String> = std::env::args().collect();
    let config = tlm::tlm::config::Config::load(std::path::Path::new(&args[1]), &args[3..].to_vec()).unwrap_or_else(|e| panic!("{e}"));
    let options = tlm::tlm::run::RunOptions { directory: args[2].clone().into(), resume: false, device: Default::default(), stop: Default::default() };
    struct P; impl tlm::tlm::observer::Observer for P {
        fn note(&mut self, t: &str) { println!("{t}"); }
        fn begin(&mut self, w: &str, t: u64, _: u64, _: tlm::tlm::observer::Unit) { println!("== {w} {t}"); }
        fn advance(&mut self, p: u64, m: &str) { if p % 200 == 0 { println!("{p} {m}"); } }
        fn end(&mut self) {}
        fn log_to(&mut self, _: &std::path::Path, _: Option<(u64,u8,u64)>) -> std::io::Result<()> { Ok(()) }
        fn row(&mut self, r: &tlm::tlm::outcome::MetricsRow) -> std::io::Result<()> { if let Some(d) = r.dev_score { println!("stage {} step {} dev {d:.4} loss {:.4}", r.stage, r.step, r.dev_loss.unwrap()); } Ok(()) }
    }
    let r = tlm::tlm::run::run(&config, &options, &mut P).unwrap_or_else(|e| panic!("{e}"));
    println!("stage1 {:?}\nstage2 {:?}\ntest {} {:.4} macro {:.4}\nstages {:?}\ntotal {:.1}s", r.stage1, r.stage2, r.test.metric, r.test.value, r.test.macro_f1, r.stages, r.seconds);
    for x in &r.repeats { println!("seed {} test {:.4} dev {:?}", x.seed, x.test.value, x.stage2.best_dev); }
}
