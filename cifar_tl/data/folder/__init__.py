"""A folder of pictures, one folder per class: `layout` what lies there and what it means, `source` decoding and storing."""
