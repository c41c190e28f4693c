"""What kshot reads and writes: one format per file.

A format that writes one file per image defines `FOLDER` (where such files go under an output folder), `WRITES`
(its suffixes, the first is the default) and `write(prediction, path)`. One that is written at the end of a run defines
`write_folder(out, records, classes, how)`, and `prepare()` where something has to be there before. One that reads a
layout of supports defines `LAYOUT` (a line that says what it looks for) and `read_shots(folder)`, which returns None
when the folder is of another layout. `kshot convert` goes from any `read_tree(where, images)` to any
`write_tree(tree, out, how)`; `trees` says what a tree of labels is.
"""
