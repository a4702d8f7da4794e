package state_test

import (
	"io"
	"net"
	"strings"
	"sync"
	"testing"
)

// A proxy stands between a client and the server, and cuts the connection when told.
type proxy struct {
	addr string
	mu   sync.Mutex
	left int // answers until the cut; negative: none planned
}

// newProxy forwards to a server's URL until the test ends.
func newProxy(t *testing.T, url string) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{addr: l.Addr().String(), left: -1}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", strings.TrimPrefix(url, "nats://"))
			if err != nil {
				_ = client.Close()
				continue
			}
			running.Go(func() {
				_, _ = io.Copy(server, client)
				_ = server.Close()
			})
			running.Go(func() {
				p.answers(client, server)
				_ = client.Close()
				_ = server.Close()
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		running.Wait()
	})
	return p
}

// cutAfter lets n more answers through; the next one is lost with the connection.
func (p *proxy) cutAfter(n int) {
	p.mu.Lock()
	p.left = n
	p.mu.Unlock()
}

func (p *proxy) answers(client io.Writer, server io.Reader) {
	buf := make([]byte, 64<<10)
	for {
		n, err := server.Read(buf)
		if err != nil {
			return
		}
		if strings.HasPrefix(string(buf[:n]), "HMSG") || strings.HasPrefix(string(buf[:n]), "MSG") {
			p.mu.Lock()
			cut := p.left == 0
			p.left--
			p.mu.Unlock()
			if cut {
				return
			}
		}
		if _, err := client.Write(buf[:n]); err != nil {
			return
		}
	}
}
