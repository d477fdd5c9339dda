"""What an extractor raises for a file that is not of its format."""


class Unreadable(Exception):
    """The reason under which the file is counted, such as ``broken_xml``."""
