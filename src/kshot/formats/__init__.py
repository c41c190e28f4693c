"""What kshot reads and writes: one annotation format per file, reader and writer together; `base` says what one is."""
