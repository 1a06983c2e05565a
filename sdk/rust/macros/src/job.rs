//! `#[job]` and `jobs!`.

use proc_macro2::{Ident, TokenStream};
use quote::{ToTokens, format_ident, quote, quote_spanned};
use syn::parse::Parser;
use syn::punctuated::Punctuated;
use syn::spanned::Spanned;
use syn::{Error, Expr, ExprLit, ItemFn, Lit, Meta, Path, Result, ReturnType, Token, parse_quote};

const EXPECTED: &str = "a job is `fn name(job: &Job, args: Arguments) -> Result<()>`, or without arguments";

/// Where the definition of a job function is.
fn definition_name(function: &Ident) -> Ident {
    format_ident!("__millstream_job_{function}")
}

pub(crate) fn job(attribute: &TokenStream, item: TokenStream) -> Result<TokenStream> {
    if !attribute.is_empty() {
        return Err(Error::new(attribute.span(), "`#[job]` takes nothing"));
    }
    let mut function: ItemFn = syn::parse2(item).map_err(|error| Error::new(error.span(), EXPECTED))?;
    check(&function)?;
    let name = &function.sig.ident;
    let text = name.to_string();
    let description = description(&function);
    let visibility = &function.vis;
    let definition = definition_name(name);
    let call = quote_spanned!(name.span()=> ::millstream::JobFunction::build(&#name, job));
    let item = quote! {
        #[doc(hidden)]
        #visibility fn #definition() -> ::millstream::Definition {
            ::millstream::Definition { name: #text, description: #description, build: |job| #call }
        }
    };
    // What std's own macros print in a guest is lost.
    function.block.stmts.insert(
        0,
        parse_quote! {
            #[allow(unused_imports)]
            use ::millstream::{eprint, eprintln, print, println};
        },
    );
    let function = function.into_token_stream();
    Ok(quote! { #function #item })
}

fn check(function: &ItemFn) -> Result<()> {
    let signature = &function.sig;
    if let Some(token) = &signature.asyncness {
        return Err(Error::new(token.span(), "a job function only describes the job: it is not async"));
    }
    if let Some(token) = &signature.unsafety {
        return Err(Error::new(token.span(), EXPECTED));
    }
    if let Some(parameter) =
        signature.generics.params.iter().find(|p| !matches!(p, syn::GenericParam::Lifetime(_)))
    {
        return Err(Error::new(parameter.span(), "a job function has no type parameters"));
    }
    if let Some(parameter) = signature.inputs.iter().find(|input| matches!(input, syn::FnArg::Receiver(_))) {
        return Err(Error::new(parameter.span(), EXPECTED));
    }
    match signature.inputs.len() {
        0 => return Err(Error::new(signature.paren_token.span.join(), EXPECTED)),
        1 | 2 => {}
        _ => return Err(Error::new(signature.inputs[2].span(), EXPECTED)),
    }
    if let ReturnType::Default = signature.output {
        return Err(Error::new(signature.ident.span(), format!("{EXPECTED}: this returns nothing")));
    }
    Ok(())
}

/// The first paragraph of the doc comment, in one line.
fn description(function: &ItemFn) -> String {
    let mut lines = Vec::new();
    for attribute in &function.attrs {
        let Meta::NameValue(meta) = &attribute.meta else { continue };
        if !meta.path.is_ident("doc") {
            continue;
        }
        if let Expr::Lit(ExprLit { lit: Lit::Str(line), .. }) = &meta.value {
            let line = line.value().trim().to_string();
            if line.is_empty() && !lines.is_empty() {
                break;
            }
            if !line.is_empty() {
                lines.push(line);
            }
        }
    }
    lines.join(" ")
}

pub(crate) fn jobs(input: TokenStream) -> Result<TokenStream> {
    let span = input.span();
    let paths = Punctuated::<Path, Token![,]>::parse_terminated.parse2(input)?;
    if paths.is_empty() {
        return Err(Error::new(span, "name the component's jobs: `jobs!(word_count)`"));
    }
    let paths: Vec<Path> = paths.into_iter().collect();
    let mut calls = Vec::new();
    for path in &paths {
        let mut definition = path.clone();
        let last =
            definition.segments.last_mut().ok_or_else(|| Error::new(path.span(), "a path of a job"))?;
        last.ident = definition_name(&last.ident);
        calls.push(quote_spanned!(path.span()=> #definition()));
    }
    Ok(quote! {
        const _: () = {
            fn definitions() -> ::std::vec::Vec<::millstream::Definition> {
                // The functions themselves first: a name that is wrong is then the user's own.
                let _ = || { #(let _ = #paths;)* };
                ::std::vec![#(#calls),*]
            }

            #[cfg(not(target_arch = "wasm32"))]
            const _: fn() -> ::std::vec::Vec<::millstream::Definition> = definitions;

            #[cfg(target_arch = "wasm32")]
            const _: () = {
                use ::millstream::private::sys::bindings::exports::millstream::job as exports;
                use ::millstream::private::sys::bindings::millstream::job as contract;
                use ::std::string::String;
                use ::std::vec::Vec;

                struct Component;

                impl exports::job::Guest for Component {
                    fn jobs() -> Vec<exports::job::JobInfo> {
                        ::millstream::private::jobs(&definitions())
                    }

                    fn plan(
                        job: String,
                        args: Vec<String>,
                    ) -> ::core::result::Result<contract::graph::JobGraph, exports::job::Refusal> {
                        ::millstream::private::plan(&definitions(), &job, &args)
                    }
                }

                impl exports::functions::Guest for Component {
                    fn open(
                        task: exports::functions::Task,
                        chain: Vec<u32>,
                        outputs: Vec<exports::functions::NodePort>,
                    ) -> ::core::result::Result<(), String> {
                        ::millstream::private::open(&definitions(), &task, &chain, &outputs)
                    }

                    fn process(
                        now: contract::calls::Moment,
                        input: u32,
                        rows: contract::rows::Batch,
                    ) -> contract::calls::Outcome {
                        ::millstream::private::process(now, input, rows)
                    }
                }

                impl exports::keyed_functions::Guest for Component {
                    fn process_keyed(
                        now: contract::calls::Moment,
                        call: contract::calls::KeyedBatch,
                    ) -> contract::calls::KeyedOutcome {
                        ::millstream::private::process_keyed(now, call)
                    }

                    fn on_timers(
                        now: contract::calls::Moment,
                        domain: contract::graph::TimeDomain,
                        times: Vec<i64>,
                        call: contract::calls::KeyedBatch,
                    ) -> contract::calls::KeyedOutcome {
                        ::millstream::private::on_timers(now, domain, times, call)
                    }
                }

                impl exports::window_functions::Guest for Component {
                    fn merge(
                        count: u32,
                        left: Vec<contract::rows::Column>,
                        right: Vec<contract::rows::Column>,
                    ) -> Vec<contract::rows::Column> {
                        ::millstream::private::merge(count, left, right)
                    }
                }

                ::millstream::private::sys::bindings::export!(
                    Component with_types_in ::millstream::private::sys::bindings
                );
            };
        };
    })
}
