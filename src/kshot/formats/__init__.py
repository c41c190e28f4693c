"""What kshot reads and writes: one format per file.

A format that writes one file per image defines `FOLDER` (where such files go under an output folder), `WRITES`
(its suffixes, the first is the default) and `write(prediction, path)`. One that is made of a whole folder defines
`write_tree(tree, out, how)`, and `prepare()` where something has to be there before; `trees` says what a tree of labels
is. `kshot convert` goes from any `read_tree(where, images)` to any `write_tree`. With `FILE` or `FOLDER_OUT`, its own
place under an output folder, it is a format of runs too, written at their end. One that reads a layout of supports
defines `LAYOUT` (a line that says what it looks for) and `read_shots(folder)`, which returns None when the folder is of
another layout.
"""
