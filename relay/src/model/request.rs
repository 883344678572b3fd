//! The request to run something on a device. A forward runs nothing and is asked for in other ways, so it is no part of
//! this.

pub(crate) use holdfast_protocol::wire::ProcessRequest;
