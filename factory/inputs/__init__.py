"""What people bring: files of many kinds, and the forms that conversations have in them."""
