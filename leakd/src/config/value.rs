//! Values with their bounds in their types: one that is out of bounds cannot
//! be made, and the error has the place in the file.

use std::fmt;
use std::ops::Deref;
use std::time::Duration;

use serde::de::{Deserializer, Error};
use serde::{Deserialize, Serialize, Serializer};

use crate::duration;

/// A span of time between two bounds, in milliseconds, written as `"5s"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span<const LEAST: u64, const MOST: u64>(Duration);

impl<const LEAST: u64, const MOST: u64> Span<LEAST, MOST> {
    /// A span that is known to be right.
    ///
    /// # Panics
    /// If it is out of bounds; in a constant, when compiled.
    pub const fn new(milliseconds: u64) -> Self {
        assert!(milliseconds >= LEAST && milliseconds <= MOST, "out of bounds");
        Self(Duration::from_millis(milliseconds))
    }
}

impl<const LEAST: u64, const MOST: u64> Deref for Span<LEAST, MOST> {
    type Target = Duration;

    fn deref(&self) -> &Duration {
        &self.0
    }
}

impl<const LEAST: u64, const MOST: u64> Serialize for Span<LEAST, MOST> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&duration::format(self.0))
    }
}

impl<'de, const LEAST: u64, const MOST: u64> Deserialize<'de> for Span<LEAST, MOST> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let span = duration::parse(&text).map_err(D::Error::custom)?;
        let bound = |milliseconds| duration::format(Duration::from_millis(milliseconds));
        if span < Duration::from_millis(LEAST) || span > Duration::from_millis(MOST) {
            let (least, most) = (bound(LEAST), bound(MOST));
            return Err(D::Error::custom(format!("`{text}` is not from {least} to {most}")));
        }
        Ok(Self(span))
    }
}

/// A whole number between two bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Count<const LEAST: u64, const MOST: u64>(u64);

impl<const LEAST: u64, const MOST: u64> Count<LEAST, MOST> {
    /// A number that is known to be right.
    ///
    /// # Panics
    /// If it is out of bounds; in a constant, when compiled.
    pub const fn new(value: u64) -> Self {
        assert!(value >= LEAST && value <= MOST, "out of bounds");
        Self(value)
    }

    /// A number, if it is within the bounds.
    pub fn checked(value: u64) -> Result<Self, String> {
        if (LEAST..=MOST).contains(&value) {
            Ok(Self(value))
        } else {
            Err(format!("{value} is not from {LEAST} to {MOST}"))
        }
    }

    /// The number.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl<'de, const LEAST: u64, const MOST: u64> Deserialize<'de> for Count<LEAST, MOST> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::checked(u64::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

/// A share in percent, above 0 and up to 100.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Percent(f64);

impl Percent {
    /// A share, if it is one.
    pub fn checked(value: f64) -> Result<Self, String> {
        if value > 0.0 && value <= 100.0 {
            Ok(Self(value))
        } else {
            Err(format!("{value} is no percentage above 0 and up to 100"))
        }
    }

    /// In percent.
    pub const fn get(self) -> f64 {
        self.0
    }

    /// Of 1.
    pub const fn share(self) -> f64 {
        self.0 / 100.0
    }

    pub(super) const fn new(value: f64) -> Self {
        Self(value)
    }
}

impl<'de> Deserialize<'de> for Percent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::checked(f64::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

/// A pattern of a shell: `*`, `?`, `[abc]`; `*` goes over `/`, too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(glob::Pattern);

impl Pattern {
    /// Whether the whole text fits.
    pub fn fits(&self, text: &str) -> bool {
        self.0.matches(text)
    }
}

impl Serialize for Pattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.as_str())
    }
}

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        glob::Pattern::new(&text)
            .map(Self)
            .map_err(|error| D::Error::custom(format!("`{text}` is no pattern: {error}")))
    }
}

/// A user of this machine, by name or number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserName {
    text: String,
    uid: u32,
}

impl UserName {
    /// Its number.
    pub fn uid(&self) -> u32 {
        self.uid
    }
}

impl fmt::Display for UserName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

impl Serialize for UserName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for UserName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let uid = match text.parse() {
            Ok(uid) => uid,
            Err(_) => match nix::unistd::User::from_name(&text) {
                Ok(Some(user)) => user.uid.as_raw(),
                _ => return Err(D::Error::custom(format!("there is no user `{text}`"))),
            },
        };
        Ok(Self { text, uid })
    }
}
