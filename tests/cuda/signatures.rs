//! Parameters of entry points: what a kernel's table says, what its source declares, what the compiled PTX takes.

use tlm::kernel::{Access, Arg, Element, Kernel, Source};

/// A parameter: whether it is a pointer to constant data, a pointer, or a number; and its name.
pub type Parameter = (String, String);

/// What the kernel's table says the parameters are.
pub fn expected(kernel: &Kernel) -> Vec<Parameter> {
    let pointer = |arg: &Arg| {
        let element = match arg.element {
            Element::F32 => "float",
            Element::U32 => "u32",
            Element::Stored => "Stored",
        };
        let constant = if arg.access == Access::In { "const " } else { "" };
        (format!("{constant}{element}*"), arg.name.to_string())
    };
    let mut parameters: Vec<Parameter> = kernel.args.iter().map(pointer).collect();
    parameters.push(("const StepParams*".to_string(), "step_params".to_string()));
    let constants = kernel
        .constants
        .iter()
        .map(|name| ("word".to_string(), name.replace('.', "_")));
    parameters.extend(constants);
    parameters
}

/// The parameters of an entry point as its source declares them.
pub fn declared(source: &Source, entry: &str) -> Option<Vec<Parameter>> {
    let text = source.file.text;
    let start = text.find(&format!(" {entry}("))?;
    let (_, bounds) = text[..start].rsplit_once("extern \"C\" __global__ void ")?;
    // Blocks of THREADS threads, and perhaps how many of them shall fit a multiprocessor.
    if !matches!(
        bounds,
        "__launch_bounds__(THREADS)" | "__launch_bounds__(THREADS, BLOCKS)"
    ) {
        return None;
    }
    let list = &text[start..start + text[start..].find(") {")?];
    let list: String = list[list.find('(')? + 1..]
        .lines()
        .map(|line| line.split("//").next().unwrap_or_default())
        .collect();
    let parameter = |declaration: &str| {
        let words: Vec<&str> = declaration
            .split_whitespace()
            .filter(|word| *word != "__restrict__")
            .collect();
        let (name, kind) = words.split_last().expect("a parameter has a type and a name");
        let kind = kind.join(" ");
        let kind = if matches!(kind.as_str(), "u32" | "float") {
            "word".to_string()
        } else {
            kind
        };
        (kind, name.to_string())
    };
    Some(list.split(',').map(parameter).collect())
}

/// Sizes of the parameters of an entry point in PTX, in bytes, and its `.maxntid`.
pub fn in_ptx(ptx: &str, entry: &str) -> Option<(Vec<u32>, u32)> {
    let start = ptx.find(&format!(".entry {entry}("))?;
    let head = &ptx[start..start + ptx[start..].find('{')?];
    let (list, rest) = head.split_once(')')?;
    let sizes = list.matches(".param .").count();
    let size = |declaration: &str| match declaration.split_whitespace().next() {
        Some("u64") => 8,
        Some("u32" | "f32") => 4,
        other => panic!("{entry}: parameter of type {other:?}"),
    };
    let parameters: Vec<u32> = list.split(".param .").skip(1).map(size).collect();
    assert_eq!(parameters.len(), sizes);
    let threads = rest
        .split(".maxntid")
        .nth(1)?
        .split([',', '\n'])
        .next()?
        .trim()
        .parse()
        .ok()?;
    Some((parameters, threads))
}
