"""Which attention heads are important (section 4.1, appendix A)."""
