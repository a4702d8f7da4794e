package twilio_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	api "github.com/twilio/twilio-go/rest/api/v2010"

	"leadpipe/internal/twilio"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const account = "AC00000000000000000000000000000001"

func newClient(t *testing.T, url string) *twilio.Client {
	t.Helper()
	return newPatientClient(t, url, 2*time.Second)
}

func newPatientClient(t *testing.T, url string, timeout time.Duration) *twilio.Client {
	t.Helper()
	c, err := twilio.New(twilio.Options{Account: account, Token: "token", BaseURL: url, Timeout: timeout, Conns: 4})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// send makes the POST of a text.
func send(call *twilio.Call) error {
	_, err := api.NewApiServiceWithClient(call.Base()).
		CreateMessage(new(api.CreateMessageParams).SetTo("+33639980001").SetFrom("38998").SetBody("Bonjour"))
	return err
}

// counted is a server that counts requests and connections.
func counted(t *testing.T, start func(*httptest.Server)) (srv *httptest.Server, requests, conns *atomic.Int32) {
	t.Helper()
	requests, conns = new(atomic.Int32), new(atomic.Int32)
	srv = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		_, _ = io.Copy(io.Discard, r.Body)
		w.WriteHeader(http.StatusCreated)
		_, _ = io.WriteString(w, `{"sid":"SM1"}`)
	}))
	srv.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			conns.Add(1)
		}
	}
	start(srv)
	t.Cleanup(srv.Close)
	return srv, requests, conns
}

func TestGateIsAskedWithAConnectionAtHand(t *testing.T) {
	t.Parallel()
	for name, start := range map[string]func(*httptest.Server){"http": (*httptest.Server).Start, "tls": (*httptest.Server).StartTLS} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv, requests, conns := counted(t, start)
			c := newClient(t, srv.URL)
			if cert := srv.Certificate(); cert != nil {
				c.Trust(cert)
			}
			// Twice, so that the second request finds a connection that is used already.
			for i := range int32(2) {
				asked := false
				call := c.Call(context.Background(), func(context.Context) error {
					asked = true
					// The server may learn of the connection a little later than we do.
					for deadline := time.Now().Add(10 * time.Second); conns.Load() == 0; time.Sleep(time.Millisecond) {
						if time.Now().After(deadline) {
							t.Error("the gate is asked before there is a connection")
							break
						}
					}
					// Give a request that is under way the time to arrive.
					time.Sleep(50 * time.Millisecond)
					if requests.Load() != i {
						t.Error("the request is there before the gate was asked")
					}
					return nil
				})
				if err := send(call); err != nil {
					t.Fatal(err)
				}
				if !asked || !call.Left() || call.Status() != http.StatusCreated {
					t.Errorf("asked %t, left %t, status %d", asked, call.Left(), call.Status())
				}
			}
			if conns.Load() != 1 {
				t.Errorf("%d connections", conns.Load())
			}
			no := errors.New("no")
			call := c.Call(context.Background(), func(context.Context) error { return no })
			if err := send(call); !errors.Is(err, no) || call.Left() {
				t.Errorf("refused by the gate: %v, left %t", err, call.Left())
			}
			if requests.Load() != 2 {
				t.Errorf("%d requests arrived", requests.Load())
			}
		})
	}
}

// A gate that is still thinking when the call's time is over lets nothing out later.
func TestNothingLeavesAfterTheTimeout(t *testing.T) {
	t.Parallel()
	srv, requests, _ := counted(t, (*httptest.Server).Start)
	c, err := twilio.New(twilio.Options{Account: account, Token: "token", BaseURL: srv.URL, Timeout: 50 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	call := c.Call(context.Background(), func(ctx context.Context) error {
		<-ctx.Done()
		return nil // too late
	})
	if err := send(call); err == nil {
		t.Error("it succeeds")
	}
	time.Sleep(100 * time.Millisecond) // what had slipped through would be there by now
	if requests.Load() != 0 || call.Left() {
		t.Error("it left after its time")
	}
}

func TestLeft(t *testing.T) {
	t.Parallel()
	t.Run("connection refused", func(t *testing.T) {
		t.Parallel()
		srv := httptest.NewServer(nil)
		srv.Close()
		call := newClient(t, srv.URL).Call(context.Background(), nil)
		if err := send(call); err == nil || call.Left() {
			t.Errorf("left %t: %v", call.Left(), err)
		}
	})
	t.Run("no such host", func(t *testing.T) {
		t.Parallel()
		call := newClient(t, "http://twilio.invalid").Call(context.Background(), nil)
		if err := send(call); err == nil || call.Left() {
			t.Errorf("left %t: %v", call.Left(), err)
		}
	})
	t.Run("a certificate that is not trusted", func(t *testing.T) {
		t.Parallel()
		srv := httptest.NewUnstartedServer(nil)
		srv.Config.ErrorLog = log.New(io.Discard, "", 0)
		srv.StartTLS()
		defer srv.Close()
		call := newClient(t, srv.URL).Call(context.Background(), nil)
		if err := send(call); err == nil || call.Left() {
			t.Errorf("left %t: %v", call.Left(), err)
		}
	})
	t.Run("hung up after the request", func(t *testing.T) {
		t.Parallel()
		srv := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }))
		defer srv.Close()
		call := newClient(t, srv.URL).Call(context.Background(), nil)
		if err := send(call); err == nil || !call.Left() {
			t.Errorf("left %t: %v", call.Left(), err)
		}
	})
}

// A connection that the server closed while it was idle, or that dies under the
// request, is never a reason to send again by itself.
func TestOneRequestACall(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	var requests atomic.Int32
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = conn.Close() }()
				// The first request of a connection is answered, the second ends it.
				r := bufio.NewReader(conn)
				for n := range 2 {
					req, err := http.ReadRequest(r)
					if err != nil {
						return
					}
					_, _ = io.Copy(io.Discard, req.Body)
					requests.Add(1)
					if n == 0 {
						_, _ = io.WriteString(conn, "HTTP/1.1 201 Created\r\nContent-Length: 13\r\n\r\n{\"sid\":\"SM1\"}")
					}
				}
			}()
		}
	}()
	c := newClient(t, "http://"+l.Addr().String())
	if err := send(c.Call(context.Background(), nil)); err != nil {
		t.Fatal(err)
	}
	call := c.Call(context.Background(), nil)
	if err := send(call); err == nil || !call.Left() {
		t.Errorf("left %t: %v", call.Left(), err)
	}
	if requests.Load() != 2 {
		t.Errorf("%d requests for two calls", requests.Load())
	}
}

func TestRedirectsAreNotFollowed(t *testing.T) {
	t.Parallel()
	var requests atomic.Int32
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
	}))
	defer srv.Close()
	call := newClient(t, srv.URL).Call(context.Background(), nil)
	if err := send(call); err == nil || call.Status() != http.StatusTemporaryRedirect || requests.Load() != 1 {
		t.Errorf("status %d, %d requests: %v", call.Status(), requests.Load(), err)
	}
}

func TestBaseURLKeepsItsPath(t *testing.T) {
	t.Parallel()
	var path atomic.Value
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		path.Store(r.URL.Path)
		_, _ = io.WriteString(w, `{"sid":"SM1"}`)
	}))
	defer srv.Close()
	for base, want := range map[string]string{"": "/2010-04-01/", "/": "/2010-04-01/", "/twilio": "/twilio/2010-04-01/"} {
		if err := send(newClient(t, srv.URL+base).Call(context.Background(), nil)); err != nil {
			t.Fatal(err)
		}
		if got := path.Load().(string); !strings.HasPrefix(got, want) {
			t.Errorf("base %q: path %s", base, got)
		}
	}
}

// An answer without an end is cut, and the call comes to an end.
func TestHugeAnswer(t *testing.T) {
	t.Parallel()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"sid":"`)
		for range 100 {
			if _, err := io.WriteString(w, strings.Repeat("x", 1<<20)); err != nil {
				return
			}
		}
	}))
	defer srv.Close()
	if err := send(newClient(t, srv.URL).Call(context.Background(), nil)); err == nil {
		t.Error("it is taken")
	}
}

// The caller's context ends a call.
func TestCallHeedsItsContext(t *testing.T) {
	t.Parallel()
	stall := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-stall }))
	defer srv.Close()
	defer close(stall)
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	begin := time.Now()
	if err := send(newPatientClient(t, srv.URL, time.Minute).Call(ctx, nil)); err == nil || time.Since(begin) > 30*time.Second {
		t.Errorf("after %s: %v", time.Since(begin), err)
	}
}

func TestOptions(t *testing.T) {
	t.Parallel()
	for _, o := range []twilio.Options{
		{Token: "t", Timeout: 1}, {Account: "a", Timeout: 1}, {Account: "a", Token: "t"},
		{Account: "a", Token: "t", Timeout: 1, BaseURL: "twilio"}, {Account: "a", Token: "t", Timeout: 1, BaseURL: "ftp://x"},
	} {
		if _, err := twilio.New(o); err == nil {
			t.Errorf("%+v is taken", o)
		}
	}
}
