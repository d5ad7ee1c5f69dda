"""What a case leaves behind: its folder of files, when that is whole, and tables over many of them."""
