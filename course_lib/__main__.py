"""`python -m course_lib` is the `course` command, as launchers of several processes start it."""

import sys

from course_lib.cli import main

sys.exit(main())
