"""How two protocols or runs differ.

changes  cells that came, went or changed, by which keys; stimuli that were made otherwise
words    the same in lines
page     the same as one HTML file, with pictures side by side
"""
