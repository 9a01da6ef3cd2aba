"""The one functional trainer that experts and evaluation use."""
