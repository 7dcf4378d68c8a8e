//! What reaches a terminal: safe text, numbers for people, colours.
