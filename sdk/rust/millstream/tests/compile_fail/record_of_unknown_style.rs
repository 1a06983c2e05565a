//! A way of naming that there is not.
use millstream::prelude::*;

#[derive(Record)]
#[record(rename_all = "kebab-case")]
//                    ^ columns are named as the fields, or in `camelCase`
struct Page {
    user_name: String,
}
