package command

func safeOf(argv [][]byte) bool {
	return Lookup(argv[0]).ReplaySafe(len(argv), func(i int) []byte { return argv[i] })
}
