"""`tinygrad-rnn explore`: a page to play with, served on this computer alone, or written as one file."""
