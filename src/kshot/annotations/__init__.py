"""What a label is: the model of labelled images that annotation formats and data sets both read through."""
