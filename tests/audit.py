"""``make audit``: run pip-audit, and tell a package with a known hole from an index that cannot be reached."""

import json
import subprocess
import sys

SECONDS = 120


def main() -> int:
    """Print the outcome; return 1 if an installed package has a known hole."""
    command = [sys.executable, "-m", "pip_audit", "--progress-spinner", "off", "--format", "json", "--skip-editable"]
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
        packages = json.loads(ended.stdout)["dependencies"]
    except (subprocess.TimeoutExpired, ValueError, KeyError) as error:
        print(f"== skipped: pip-audit gave no answer ({type(error).__name__})")
        return 0
    asked = [package for package in packages if "vulns" in package]
    if not asked:
        print(f"== skipped: pip-audit reached no index that knows the {len(packages)} installed packages")
        return 0
    holes = [(package["name"], package["version"], hole) for package in asked for hole in package["vulns"]]
    for name, version, hole in holes:
        print(f"{name} {version}: {hole['id']}, fixed in {', '.join(hole['fix_versions']) or 'no version yet'}")
    print(f"{len(asked)} of {len(packages)} packages known to the index, {len(holes)} known holes")
    return 1 if holes else 0


if __name__ == "__main__":
    sys.exit(main())
