"""What observers see and answer.

trials          rooms of its own: trial lists
export          rooms of its own: other programs' formats
response_files  files of answers -> tables
responses       answers beside the manifest
"""
