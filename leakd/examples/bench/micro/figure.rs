//! What was found out, and how it compares with what was to be reached.

use serde_json::{Value, json};

use crate::render::number;
use crate::statistics::Summary;

/// What a figure is to be.
#[derive(Clone, Copy, Debug)]
pub enum Goal {
    /// No goal: for information.
    None,
    /// This or less.
    AtMost(f64),
}

impl Goal {
    fn met(self, value: f64) -> Option<bool> {
        match self {
            Self::None => None,
            Self::AtMost(limit) => Some(value <= limit),
        }
    }
}

/// One line of the result.
#[derive(Clone, Debug)]
pub struct Figure {
    name: String,
    unit: &'static str,
    /// Or why there is none.
    value: Result<Summary, String>,
    goal: Goal,
}

impl Figure {
    /// A figure from the values of several rounds.
    pub fn new(name: impl Into<String>, unit: &'static str, goal: Goal, values: &[f64]) -> Self {
        let value = Summary::of(values).ok_or_else(|| "not measured".to_owned());
        Self { name: name.into(), unit, value, goal }
    }

    /// A figure that could not be had.
    pub fn missing(name: impl Into<String>, goal: Goal, why: impl Into<String>) -> Self {
        Self { name: name.into(), unit: "", value: Err(why.into()), goal }
    }

    /// Whether it has a goal and misses it.
    pub fn misses(&self) -> bool {
        match &self.value {
            Ok(value) => self.goal.met(value.median) == Some(false),
            Err(_) => !matches!(self.goal, Goal::None),
        }
    }

    /// Whether it has a goal.
    pub fn has_goal(&self) -> bool {
        !matches!(self.goal, Goal::None)
    }

    fn goal_text(&self) -> String {
        match self.goal {
            Goal::None => String::new(),
            Goal::AtMost(limit) => format!("<= {}", number(limit)),
        }
    }

    /// The line of the table, 79 columns wide.
    pub fn line(&self) -> String {
        let value = match &self.value {
            Ok(value) => value,
            Err(why) => return format!("  {:<36} {why}", self.name),
        };
        let range = if value.low < value.high {
            format!("{}..{}", number(value.low), number(value.high))
        } else {
            String::new()
        };
        let met = match self.goal.met(value.median) {
            None => "",
            Some(true) => "met",
            Some(false) => "NOT MET",
        };
        let line = format!(
            "  {:<32} {:>8} {:<3} {:>15} {:>7} {met}",
            self.name,
            number(value.median),
            self.unit,
            range,
            self.goal_text(),
        );
        line.trim_end().to_owned()
    }

    /// The headings over [`Self::line`].
    pub fn heading(title: &str) -> String {
        format!("{title:<34} {:>8} {:<3} {:>15} {:>7}", "median", "", "lowest..highest", "goal")
    }

    /// As an object of JSON.
    pub fn json(&self) -> Value {
        let (goal, bound) = match self.goal {
            Goal::None => (Value::Null, Value::Null),
            Goal::AtMost(limit) => (json!(limit), json!("at most")),
        };
        let mut object = json!({
            "name": self.name,
            "unit": self.unit,
            "goal": goal,
            "bound": bound,
        });
        match &self.value {
            Ok(value) => {
                object["median"] = json!(value.median);
                object["lowest"] = json!(value.low);
                object["highest"] = json!(value.high);
                object["met"] = json!(self.goal.met(value.median));
            }
            Err(why) => object["missing"] = json!(why),
        }
        object
    }
}
