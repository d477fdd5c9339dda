"""What comes from elsewhere: pinned downloads, buckets, the hub. What is refused once is asked for again."""
