// The consumers keep the state and carry out what it asks for: all of them, or those
// named as arguments. Any number of processes may run side by side. `consumers COMMAND`
// is what an operator does.
package main

import (
	"os"

	"leadpipe/internal/daemon/consumersd"
)

func main() { os.Exit(consumersd.Main(os.Args[1:])) }
