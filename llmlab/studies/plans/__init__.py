"""Plans of several runs, whatever they answer: their records on disk, a trial that trains, when it has diverged."""
