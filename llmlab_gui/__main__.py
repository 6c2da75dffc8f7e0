"""`python -m llmlab_gui`."""

from llmlab_gui.app import main

raise SystemExit(main())
