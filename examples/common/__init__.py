"""What the example scripts share: their frame, their pictures, and the data and baselines of single examples."""
