"""What a run found: collected from its artifacts, compared arm by arm, judged; and the file it leaves."""
