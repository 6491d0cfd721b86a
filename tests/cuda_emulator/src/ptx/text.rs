//! PTX text, cut into declarations and statements.
//!
//! Everything ends with a semicolon except labels, braces and the directives that end with their line. [`cut`] finds
//! a module's variables and functions; the body of a function stays text until [`statements`] walks it.

use super::PtxError;

/// A variable's declaration: everything between its space and its semicolon.
#[derive(Clone, Debug)]
pub struct VariableText {
    /// `.global`, `.const`, `.shared`, `.local` or `.param`, without the dot.
    pub space: String,
    /// Type, alignment, name, extent and initialiser.
    pub rest: String,
    /// Line of the text.
    pub line: u32,
}

/// A kernel or a device function.
#[derive(Clone, Debug)]
pub struct FunctionText {
    /// Whether it is an entry point.
    pub entry: bool,
    /// Name.
    pub name: String,
    /// Declarations of what is returned.
    pub results: Vec<VariableText>,
    /// Declarations of the parameters.
    pub parameters: Vec<VariableText>,
    /// `.maxntid`, `.reqntid` and the like.
    pub directives: String,
    /// Text between the braces; none for a declaration.
    pub body: Option<String>,
    /// Line of the body's opening brace.
    pub line: u32,
}

/// A module's declarations.
#[derive(Debug, Default)]
pub struct ModuleText {
    /// Variables of the module.
    pub variables: Vec<VariableText>,
    /// Kernels and device functions.
    pub functions: Vec<FunctionText>,
    /// Source files by number.
    pub files: Vec<(u32, String)>,
}

/// A statement of a function's body.
#[derive(Debug, PartialEq)]
pub enum Statement<'a> {
    /// `{`
    Open,
    /// `}`
    Close,
    /// `name:`
    Label(&'a str),
    /// `.loc` and what follows on its line.
    Loc(&'a str),
    /// Another directive, up to its semicolon.
    Directive(&'a str),
    /// An instruction, up to its semicolon.
    Instruction(&'a str),
}

/// Position in a text.
struct Cursor<'a> {
    text: &'a str,
    at: usize,
    line: u32,
}

impl<'a> Cursor<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn advance(&mut self, bytes: usize) -> &'a str {
        let passed = &self.text[self.at..self.at + bytes];
        self.line += passed.bytes().filter(|byte| *byte == b'\n').count() as u32;
        self.at += bytes;
        passed
    }

    fn skip_space(&mut self) {
        let rest = self.rest();
        self.advance(rest.len() - rest.trim_start().len());
    }

    /// Up to a character, which is passed too.
    fn until(&mut self, end: char) -> Result<&'a str, PtxError> {
        let Some(length) = self.rest().find(end) else {
            return Err(PtxError::new(self.line, format!("no {end:?} follows")));
        };
        let found = self.advance(length);
        self.advance(end.len_utf8());
        Ok(found)
    }

    /// A name or a directive.
    fn word(&mut self) -> &'a str {
        self.skip_space();
        let rest = self.rest();
        let end = rest.find(|c: char| c.is_whitespace() || "(){}[],;".contains(c));
        self.advance(end.unwrap_or(rest.len()))
    }

    /// What stands between a pair of brackets, the cursor being at the opening one.
    fn enclosed(&mut self, open: char, close: char) -> Result<&'a str, PtxError> {
        let (line, mut depth) = (self.line, 0);
        for (at, c) in self.rest().char_indices() {
            depth += i32::from(c == open) - i32::from(c == close);
            if depth == 0 {
                let inner = &self.rest()[open.len_utf8()..at];
                self.advance(at + close.len_utf8());
                return Ok(inner);
            }
        }
        Err(PtxError::new(line, format!("{open:?} is not closed")))
    }
}

/// Comments as spaces, lines as they are.
fn without_comments(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('/') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let code = !inside_string(&out);
        if code && rest.starts_with("//") {
            rest = &rest[rest.find('\n').unwrap_or(rest.len())..];
        } else if code && rest.starts_with("/*") {
            let end = rest.find("*/").map_or(rest.len(), |end| end + 2);
            out.extend(rest[..end].chars().filter(|c| *c == '\n'));
            rest = &rest[end..];
        } else {
            out.push('/');
            rest = &rest[1..];
        }
    }
    out.push_str(rest);
    out
}

fn inside_string(text: &str) -> bool {
    let line = text.rsplit('\n').next().unwrap_or_default();
    line.matches('"').count() % 2 == 1
}

/// Cuts a module.
pub fn cut(text: &str) -> Result<ModuleText, PtxError> {
    let text = without_comments(text);
    let mut cursor = Cursor {
        text: &text,
        at: 0,
        line: 1,
    };
    let mut module = ModuleText::default();
    loop {
        cursor.skip_space();
        if cursor.rest().is_empty() {
            return Ok(module);
        }
        let line = cursor.line;
        match cursor.word() {
            ".version" | ".target" | ".address_size" | ".loc" => {
                let rest = cursor.rest();
                cursor.advance(rest.find('\n').unwrap_or(rest.len()));
            }
            ".file" => {
                let rest = cursor.rest();
                let words = cursor.advance(rest.find('\n').unwrap_or(rest.len()));
                module.files.extend(file(words));
            }
            ".visible" | ".extern" | ".weak" | ".common" => {}
            ".pragma" => {
                cursor.until(';')?;
            }
            ".section" => {
                cursor.word();
                cursor.skip_space();
                cursor.enclosed('{', '}')?;
            }
            space @ (".global" | ".const" | ".shared") => module.variables.push(VariableText {
                space: space[1..].to_string(),
                rest: cursor.until(';')?.to_string(),
                line,
            }),
            kind @ (".entry" | ".func") => module.functions.push(function(&mut cursor, kind == ".entry")?),
            other => return Err(PtxError::new(line, format!("unknown directive {other:?}"))),
        }
    }
}

/// Number and name in `1 "name"`, perhaps followed by time and size.
fn file(words: &str) -> Option<(u32, String)> {
    let (number, rest) = words.trim().split_once(char::is_whitespace)?;
    let name = rest.split('"').nth(1)?;
    Some((number.parse().ok()?, name.to_string()))
}

fn function(cursor: &mut Cursor<'_>, entry: bool) -> Result<FunctionText, PtxError> {
    cursor.skip_space();
    let mut results = Vec::new();
    if cursor.rest().starts_with('(') {
        results = parameters(cursor)?;
    }
    let name = cursor.word().to_string();
    cursor.skip_space();
    let parameters = if cursor.rest().starts_with('(') {
        parameters(cursor)?
    } else {
        Vec::new()
    };
    let Some(end) = cursor.rest().find(['{', ';']) else {
        return Err(PtxError::new(cursor.line, format!("function {name} has no body")));
    };
    let directives = cursor.advance(end).to_string();
    let line = cursor.line;
    let body = if cursor.rest().starts_with('{') {
        Some(cursor.enclosed('{', '}')?.to_string())
    } else {
        cursor.advance(1);
        None
    };
    Ok(FunctionText {
        entry,
        name,
        results,
        parameters,
        directives,
        body,
        line,
    })
}

fn parameters(cursor: &mut Cursor<'_>) -> Result<Vec<VariableText>, PtxError> {
    let line = cursor.line;
    let list = cursor.enclosed('(', ')')?;
    let declarations = list.split(',').map(str::trim).filter(|text| !text.is_empty());
    let declaration = |text: &str| match text.strip_prefix(".param") {
        Some(rest) => Ok(VariableText {
            space: "param".to_string(),
            rest: rest.to_string(),
            line,
        }),
        None => Err(PtxError::new(line, format!("parameter {text:?} is not in .param"))),
    };
    declarations.map(declaration).collect()
}

/// The statements of a body, each with its line.
pub fn statements(body: &str, line: u32) -> Result<Vec<(u32, Statement<'_>)>, PtxError> {
    let mut cursor = Cursor {
        text: body,
        at: 0,
        line,
    };
    let mut found = Vec::new();
    loop {
        cursor.skip_space();
        let (rest, line) = (cursor.rest(), cursor.line);
        let statement = match rest.chars().next() {
            None => return Ok(found),
            Some('{') => {
                cursor.advance(1);
                Statement::Open
            }
            Some('}') => {
                cursor.advance(1);
                Statement::Close
            }
            Some(';') => {
                cursor.advance(1);
                continue;
            }
            Some('.') if rest.starts_with(".loc") && !rest.starts_with(".local") => {
                let end = rest.find('\n').unwrap_or(rest.len());
                Statement::Loc(cursor.advance(end)[4..].trim())
            }
            Some('.') => Statement::Directive(cursor.until(';')?.trim()),
            Some(_) => {
                let end = rest.find(|c: char| !(c.is_alphanumeric() || "_$%".contains(c)));
                let end = end.unwrap_or(rest.len());
                if rest[end..].starts_with(':') && !rest[end..].starts_with("::") {
                    let name = cursor.advance(end);
                    cursor.advance(1);
                    Statement::Label(name)
                } else {
                    Statement::Instruction(cursor.until(';')?.trim())
                }
            }
        };
        found.push((line, statement));
    }
}

/// The parts of a list between its top-level commas.
pub fn split_list(list: &str) -> Vec<&str> {
    let (mut depth, mut start, mut parts) = (0, 0, Vec::new());
    for (at, c) in list.char_indices() {
        match c {
            '{' | '[' | '(' => depth += 1,
            '}' | ']' | ')' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(list[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    if !list[start..].trim().is_empty() {
        parts.push(list[start..].trim());
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_end_where_they_should() {
        let body = "\n .reg .b32 %r<3>;\n .loc 1 4 0\n$L_1: @!%p1 bra $L_1;{ add.s32 a, b,\n c; }";
        let statements: Vec<_> = statements(body, 10).unwrap();
        let expected = vec![
            (11, Statement::Directive(".reg .b32 %r<3>")),
            (12, Statement::Loc("1 4 0")),
            (13, Statement::Label("$L_1")),
            (13, Statement::Instruction("@!%p1 bra $L_1")),
            (13, Statement::Open),
            (13, Statement::Instruction("add.s32 a, b,\n c")),
            (14, Statement::Close),
        ];
        assert_eq!(statements, expected);
    }

    #[test]
    fn lists_are_split_outside_of_brackets() {
        assert_eq!(split_list("{%r1, %r2}, [%rd1+4], 0"), ["{%r1, %r2}", "[%rd1+4]", "0"]);
    }
}
