"""The version, in the one place that says it: the package's metadata are made from here, `CITATION.cff` is held to it by a test."""

VERSION = "0.2.0"
