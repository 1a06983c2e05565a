//! The macros of the Millstream SDK. They are documented and used by way of the crate `millstream`.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod job;
mod record;

use proc_macro::TokenStream;

/// Makes a struct a row: its fields become columns.
///
/// Beside the struct `Event` there are then `EventRef<'_>`, the borrowed row that closures get,
/// and a constant for each field, such as `Event::USER`, for `key_by` and aggregates.
#[proc_macro_derive(Record, attributes(record))]
pub fn record(input: TokenStream) -> TokenStream {
    record::derive(syn::parse_macro_input!(input)).unwrap_or_else(|error| error.to_compile_error()).into()
}

/// Makes a function a job: `fn name(job: &Job, args: Arguments) -> Result<()>`, or without
/// arguments. Its doc comment describes the job to users.
///
/// Within it `println!` and its like write to the operator's log.
#[proc_macro_attribute]
pub fn job(attribute: TokenStream, item: TokenStream) -> TokenStream {
    job::job(&attribute.into(), item.into()).unwrap_or_else(|error| error.to_compile_error()).into()
}

/// Makes the crate a component of these jobs, the first of which is the default:
/// `millstream::jobs!(word_count, top_words);`
#[proc_macro]
pub fn jobs(input: TokenStream) -> TokenStream {
    job::jobs(input.into()).unwrap_or_else(|error| error.to_compile_error()).into()
}
