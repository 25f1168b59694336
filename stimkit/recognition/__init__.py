"""What a network takes an image for.

categories  classes of a classifier by categories: ImageNet's own, Geirhos' 16, or a table
classifier  images -> probabilities of classes
decisions   probabilities -> the category that is recognized, ranks, the balance of cues
"""
