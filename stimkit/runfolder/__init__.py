"""The run folder on disk.

locks          who writes a folder
store          files of a run folder, committed one by one
run            one read of a run folder, as values
contact_sheet  all stimuli in one picture
derived        tables and sheets, rebuilt from the records
"""
