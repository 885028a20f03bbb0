//! [`group`]: defines two structs from one list of settings: the flags, each of which may be
//! absent, and the settings, each of which has a value.

/// Defines `$flags` and `$settings` from one list of settings with their defaults.
///
/// `$flags` are clap's `Args`; all of them are optional, so that a file or the defaults can set the
/// absent ones.
macro_rules! group {
    ($heading:literal, $flags:ident, $settings:ident {
        $($(#[doc = $doc:literal])* #[arg($($arg:tt)*)]
        $name:ident: $type:ty = $default:expr;)*
    }) => {
        #[doc = concat!("Flags under \"", $heading, "\". An absent one is `None`.")]
        #[derive(Clone, Debug, Default, PartialEq, clap::Args, serde::Serialize)]
        #[serde(rename_all = "kebab-case")]
        #[command(next_help_heading = $heading)]
        pub struct $flags {
            $(
                $(#[doc = $doc])*
                #[arg($($arg)*)]
                #[serde(skip_serializing_if = "Option::is_none")]
                pub $name: Option<$type>,
            )*
        }

        #[doc = concat!("Settings under \"", $heading, "\".")]
        #[derive(Clone, Debug, PartialEq)]
        pub(crate) struct $settings {
            $($(#[doc = $doc])* pub(crate) $name: $type,)*
        }

        impl $flags {
            /// The keys of a settings file: the long names of the flags.
            pub(super) const KEYS: &[&str] = &[$(stringify!($name)),*];

            /// These flags; if one is absent, the flag of `other`.
            pub(super) fn or(self, other: Self) -> Self {
                Self { $($name: self.$name.or(other.$name),)* }
            }

            /// Sets the flag with this field name; `false` if there is no such flag.
            pub(super) fn set<'de, D: serde::Deserializer<'de>>(
                &mut self,
                name: &str,
                value: D,
            ) -> Result<bool, D::Error> {
                $(
                    if name == stringify!($name) {
                        self.$name = Some(<$type as serde::Deserialize>::deserialize(value)?);
                        return Ok(true);
                    }
                )*
                Ok(false)
            }

            /// The names of the flags that are set, with hyphens. A switch that is off asks for
            /// nothing.
            pub(super) fn given(&self) -> Vec<String> {
                let mut names = Vec::new();
                $(
                    let off = |value| format!("{value:?}") == "false";
                    if self.$name.as_ref().is_some_and(|value| !off(value)) {
                        names.push(stringify!($name).replace('_', "-"));
                    }
                )*
                names
            }

            /// These flags; if one is absent, its default.
            pub(super) fn or_defaults(self) -> $settings {
                $settings { $($name: self.$name.unwrap_or_else(|| $default),)* }
            }
        }

        impl $settings {
            /// Every setting as a flag.
            pub(super) fn to_flags(&self) -> $flags {
                $flags { $($name: Some(self.$name.clone()),)* }
            }
        }
    };
}

/// The largest count of rows, batches or ranks: with more, sizes in bytes could overflow.
pub(super) const MOST: usize = 65_536;

/// Returns the first of the named settings that differ, as a sentence.
macro_rules! differing {
    ($new:expr, $saved:expr; $($name:ident),*) => {
        $(
            if $new.$name != $saved.$name {
                let name = stringify!($name).replace('_', "-");
                return Some(crate::settings::difference(&name, &$new.$name, &$saved.$name));
            }
        )*
    };
}

pub(super) use {differing, group};
