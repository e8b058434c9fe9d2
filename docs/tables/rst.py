"""A list-table from rows of text."""


def list_table(header, rows, widths=None):
    lines = [".. list-table::", "   :header-rows: 1"]
    lines += [f"   :widths: {' '.join(map(str, widths))}"] if widths else []
    lines.append("")
    for row in (header, *rows):
        for i, cell in enumerate(row):
            # A lone "-" would open a nested list.
            text = "" if cell == "-" else cell
            lines.append(f"   {'* -' if i == 0 else '  -'} {text}".rstrip())
    return "\n".join([*lines, ""])


def code(words):
    return ", ".join(f"``{word}``" for word in words)
