package natstest

import (
	"fmt"
	"testing"

	"leadpipe/internal/freeport"
)

// Port gives a port on which nobody listens, for a program that has to be told one.
func Port(tb testing.TB) int {
	tb.Helper()
	port, err := freeport.Port()
	if err != nil {
		tb.Fatal(err)
	}
	return port
}

// Addr gives such a port as an address of this machine.
func Addr(tb testing.TB) string {
	tb.Helper()
	return fmt.Sprint("127.0.0.1:", Port(tb))
}
