//! A component of a job that is not there.
millstream::jobs!(words);
//                ^^^^^ cannot find
