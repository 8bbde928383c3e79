"""Write docs/firewall.md anew."""

from pathlib import Path

from tests.golden.document import document

PAGE = Path(__file__).parents[2] / "docs" / "firewall.md"

if __name__ == "__main__":
    PAGE.write_text(document())
    print(f"wrote {PAGE}")
