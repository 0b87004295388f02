//! The messages as they are on the wire: `build.bazel.remote.execution.v2` (remote_execution.proto),
//! with the same field numbers. Nothing outside this crate sees them.

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Directory {
    #[prost(message, repeated, tag = "1")]
    pub(crate) files: Vec<FileNode>,
    #[prost(message, repeated, tag = "2")]
    pub(crate) directories: Vec<DirectoryNode>,
    #[prost(message, repeated, tag = "3")]
    pub(crate) symlinks: Vec<SymlinkNode>,
    #[prost(message, optional, tag = "5")]
    pub(crate) node_properties: Option<NodeProperties>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct FileNode {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(message, optional, tag = "2")]
    pub(crate) digest: Option<Digest>,
    #[prost(bool, tag = "4")]
    pub(crate) is_executable: bool,
    #[prost(message, optional, tag = "6")]
    pub(crate) node_properties: Option<NodeProperties>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct DirectoryNode {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(message, optional, tag = "2")]
    pub(crate) digest: Option<Digest>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct SymlinkNode {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(string, tag = "2")]
    pub(crate) target: String,
    #[prost(message, optional, tag = "4")]
    pub(crate) node_properties: Option<NodeProperties>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Digest {
    #[prost(string, tag = "1")]
    pub(crate) hash: String,
    #[prost(int64, tag = "2")]
    pub(crate) size_bytes: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct NodeProperties {
    #[prost(message, repeated, tag = "1")]
    pub(crate) properties: Vec<NodeProperty>,
    /// `google.protobuf.Timestamp`.
    #[prost(message, optional, tag = "2")]
    pub(crate) mtime: Option<Timestamp>,
    /// `google.protobuf.UInt32Value`.
    #[prost(message, optional, tag = "3")]
    pub(crate) unix_mode: Option<UInt32Value>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct NodeProperty {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(string, tag = "2")]
    pub(crate) value: String,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(crate) struct Timestamp {
    #[prost(int64, tag = "1")]
    pub(crate) seconds: i64,
    #[prost(int32, tag = "2")]
    pub(crate) nanos: i32,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(crate) struct UInt32Value {
    #[prost(uint32, tag = "1")]
    pub(crate) value: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Tree {
    #[prost(message, optional, tag = "1")]
    pub(crate) root: Option<Directory>,
    #[prost(message, repeated, tag = "2")]
    pub(crate) children: Vec<Directory>,
}
