//! One line of text to tokens, and a cursor over them.
//!
//! Knows the spelling of numbers, names, registers and strings, not which of them an instruction wants. Every error has
//! the column of the token that caused it.

use super::error::{AsmError, AsmErrorKind};
use crate::insn::Reg;

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum TokenKind {
    /// Instruction, directive, label or name.
    Word(String),
    /// `%r3`.
    Reg(Reg),
    /// Without its sign.
    Number(u64),
    /// A quoted string, escapes replaced.
    Bytes(Vec<u8>),
    Punct(char),
    Arrow,
}

impl std::fmt::Display for TokenKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Word(word) => write!(f, "{word}"),
            Self::Reg(reg) => write!(f, "%r{}", reg.number()),
            Self::Number(number) => write!(f, "{number}"),
            Self::Bytes(_) => write!(f, "a string"),
            Self::Punct(punct) => write!(f, "{punct}"),
            Self::Arrow => write!(f, "->"),
        }
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Token {
    pub(super) kind: TokenKind,
    pub(super) column: u32,
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '$')
}

/// The characters of a line, with the column of the next one.
struct Chars<'a> {
    rest: std::iter::Peekable<std::str::Chars<'a>>,
    line: u32,
    column: u32,
}

impl Chars<'_> {
    fn next(&mut self) -> Option<char> {
        let c = self.rest.next()?;
        self.column = self.column.saturating_add(1);
        Some(c)
    }

    fn peek(&mut self) -> Option<char> {
        self.rest.peek().copied()
    }

    fn word(&mut self) -> String {
        let mut word = String::new();
        while let Some(c) = self.peek().filter(|c| is_word(*c)) {
            word.push(c);
            self.next();
        }
        word
    }

    fn string(&mut self) -> Result<Vec<u8>, AsmErrorKind> {
        let mut bytes = Vec::new();
        loop {
            match self.next().ok_or(AsmErrorKind::UnterminatedString)? {
                '"' => return Ok(bytes),
                '\\' => match self.next().ok_or(AsmErrorKind::UnterminatedString)? {
                    '0' => bytes.push(0),
                    'n' => bytes.push(b'\n'),
                    't' => bytes.push(b'\t'),
                    c @ ('\\' | '"') => bytes.push(c as u8),
                    'x' => {
                        let mut digit = || self.next().and_then(|c| c.to_digit(16));
                        let (Some(high), Some(low)) = (digit(), digit()) else {
                            return Err(AsmErrorKind::BadEscape { found: 'x' });
                        };
                        bytes.push((high * 16 + low) as u8);
                    }
                    found => return Err(AsmErrorKind::BadEscape { found }),
                },
                c => bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
    }

    fn token(&mut self, c: char) -> Result<TokenKind, AsmErrorKind> {
        Ok(match c {
            '"' => {
                self.next();
                TokenKind::Bytes(self.string()?)
            }
            '%' => {
                self.next();
                let name = self.word();
                let reg = register(&name).ok_or(AsmErrorKind::BadRegister {
                    name: format!("%{name}"),
                })?;
                TokenKind::Reg(reg)
            }
            '0'..='9' => {
                let text = self.word();
                TokenKind::Number(number(&text).ok_or(AsmErrorKind::BadNumber { text })?)
            }
            c if is_word(c) => TokenKind::Word(self.word()),
            '-' => {
                self.next();
                if self.peek() == Some('>') {
                    self.next();
                    TokenKind::Arrow
                } else {
                    TokenKind::Punct('-')
                }
            }
            ',' | '[' | ']' | '(' | ')' | '+' | ':' | '?' => {
                self.next();
                TokenKind::Punct(c)
            }
            found => return Err(AsmErrorKind::BadCharacter { found }),
        })
    }
}

/// `r0` to `r10`.
fn register(name: &str) -> Option<Reg> {
    let digits = name.strip_prefix('r')?;
    if digits.len() > 1 && digits.starts_with('0') {
        return None;
    }
    Reg::new(digits.parse().ok()?)
}

fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

/// The tokens of one line and a position among them.
pub(super) struct Cursor {
    tokens: Vec<Token>,
    next: usize,
    line: u32,
    end: u32,
}

impl Cursor {
    /// `#`, `;` and `//` begin a comment.
    pub(super) fn new(text: &str, line: u32) -> Result<Self, AsmError> {
        let mut chars = Chars {
            rest: text.chars().peekable(),
            line,
            column: 1,
        };
        let mut tokens = Vec::new();
        while let Some(c) = chars.peek() {
            let column = chars.column;
            if c.is_whitespace() {
                chars.next();
                continue;
            }
            if matches!(c, '#' | ';') || chars.rest.clone().take(2).eq("//".chars()) {
                break;
            }
            let kind = chars.token(c).map_err(|what| AsmError {
                line: chars.line,
                column,
                what,
            })?;
            tokens.push(Token { kind, column });
        }
        Ok(Self {
            tokens,
            next: 0,
            line,
            end: chars.column,
        })
    }

    pub(super) fn peek(&self) -> Option<&TokenKind> {
        self.tokens.get(self.next).map(|token| &token.kind)
    }

    pub(super) fn peek_second(&self) -> Option<&TokenKind> {
        self.tokens.get(self.next + 1).map(|token| &token.kind)
    }

    pub(super) fn line(&self) -> u32 {
        self.line
    }

    /// Of the next token.
    pub(super) fn column(&self) -> u32 {
        self.tokens
            .get(self.next)
            .map_or(self.end, |token| token.column)
    }

    /// An error at the next token.
    pub(super) fn error(&self, what: AsmErrorKind) -> AsmError {
        AsmError {
            line: self.line,
            column: self.column(),
            what,
        }
    }

    pub(super) fn expected(&self, expected: &'static str) -> AsmError {
        let found = self
            .peek()
            .map_or_else(|| "the end of the line".to_owned(), ToString::to_string);
        self.error(AsmErrorKind::Expected { expected, found })
    }

    pub(super) fn advance(&mut self) {
        self.next += 1;
    }

    /// Where the cursor is, for [`Self::rewind`].
    pub(super) fn position(&self) -> usize {
        self.next
    }

    pub(super) fn rewind(&mut self, position: usize) {
        self.next = position;
    }

    /// Takes the next token if it is this character.
    pub(super) fn eat(&mut self, punct: char) -> bool {
        let found = self.peek() == Some(&TokenKind::Punct(punct));
        if found {
            self.advance();
        }
        found
    }

    /// Takes the next token if it is this word.
    pub(super) fn eat_word(&mut self, wanted: &str) -> bool {
        let found = matches!(self.peek(), Some(TokenKind::Word(word)) if word == wanted);
        if found {
            self.advance();
        }
        found
    }

    pub(super) fn punct(&mut self, punct: char, expected: &'static str) -> Result<(), AsmError> {
        if self.eat(punct) {
            Ok(())
        } else {
            Err(self.expected(expected))
        }
    }

    pub(super) fn comma(&mut self) -> Result<(), AsmError> {
        self.punct(',', "a comma")
    }

    pub(super) fn word(&mut self, expected: &'static str) -> Result<String, AsmError> {
        match self.peek() {
            Some(TokenKind::Word(word)) => {
                let word = word.clone();
                self.advance();
                Ok(word)
            }
            _ => Err(self.expected(expected)),
        }
    }

    /// A register, `%r3` or `r3`.
    pub(super) fn reg(&mut self) -> Result<Reg, AsmError> {
        let reg = match self.peek() {
            Some(TokenKind::Reg(reg)) => Some(*reg),
            Some(TokenKind::Word(word)) => register(word),
            _ => None,
        };
        let reg = reg.ok_or_else(|| self.expected("a register"))?;
        self.advance();
        Ok(reg)
    }

    pub(super) fn is_reg(&self) -> bool {
        match self.peek() {
            Some(TokenKind::Reg(_)) => true,
            Some(TokenKind::Word(word)) => register(word).is_some(),
            _ => false,
        }
    }

    /// A number with an optional sign.
    pub(super) fn number(&mut self, expected: &'static str) -> Result<i128, AsmError> {
        let start = self.next;
        let negative = self.eat('-') || {
            self.eat('+');
            false
        };
        let Some(&TokenKind::Number(value)) = self.peek() else {
            self.next = start;
            return Err(self.expected(expected));
        };
        self.advance();
        let value = i128::from(value);
        Ok(if negative { -value } else { value })
    }

    /// A number converted by `narrow`, or the message that `what` cannot hold it.
    pub(super) fn number_as<T>(
        &mut self,
        what: &'static str,
        narrow: impl Fn(i128) -> Option<T>,
    ) -> Result<T, AsmError> {
        let column = self.column();
        let value = self.number(what)?;
        narrow(value).ok_or(AsmError {
            line: self.line,
            column,
            what: AsmErrorKind::OutOfRange { value, what },
        })
    }

    pub(super) fn end(&self) -> Result<(), AsmError> {
        if self.peek().is_none() {
            Ok(())
        } else {
            Err(self.expected("the end of the line"))
        }
    }
}
