"""The run folder on disk.

locks          who writes a folder
notes          how far those who write it are
layout         what stands where in it
journal        digests of what was committed, in a chain
cell_files     files of cells, read one by one
store          files of a run folder, committed one by one
run            one read of a run folder, as values
contact_sheet  all stimuli in one picture
plots          figures for notebooks and papers
derived        tables and sheets, rebuilt from the records
measurement_files  tables of what was measured, as they were committed
measuring      what was measured of stimuli later -> tables of the folder
"""
