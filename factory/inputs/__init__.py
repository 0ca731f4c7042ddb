"""Reading rows from users' files and data sets, and naming what is wrong with them."""
