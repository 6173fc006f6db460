//! The macro that turns one declaration into a serde struct, its defaults and its reference entries.

use serde_json::Value;

/// One documented option, as [`super::OptionEntry`] without the group.
#[derive(Clone, Debug)]
pub(super) struct Declared {
    pub name: &'static str,
    pub kind: &'static str,
    pub default: Value,
    pub doc: String,
}

/// Declares a configuration struct: every field with its documentation, type, type in the user's words and default.
macro_rules! options {
    ($(#[$meta:meta])* pub struct $Name:ident { $($(#[doc = $doc:literal])+ $field:ident: $type:ty [$kind:literal] = $default:expr,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct $Name { $($(#[doc = $doc])+ pub $field: $type,)* }

        impl Default for $Name {
            fn default() -> Self {
                Self { $($field: $default,)* }
            }
        }

        impl $Name {
            pub(super) fn declared(&self) -> Vec<$crate::config::options::Declared> {
                vec![$($crate::config::options::Declared {
                    name: stringify!($field),
                    kind: $kind,
                    default: serde_json::to_value(&self.$field).expect("plain data always becomes JSON"),
                    doc: [$($doc),+].map(str::trim).join(" "),
                },)*]
            }
        }
    };
}
