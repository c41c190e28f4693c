"""What kshot reads and writes: one format per file.

A format that writes one file per image defines `FOLDER` (where such files go under an output folder), `WRITES`
(its suffixes, the first is the default) and `write(prediction, path)`. One that writes one file per folder defines
`FILE` and `write_folder(out, records, classes)`. One that reads a layout of supports defines `LAYOUT` (a line that
says what it looks for) and `read_shots(folder)`, which returns None when the folder is of another layout.
"""
