//! The program as a picture for Graphviz.
