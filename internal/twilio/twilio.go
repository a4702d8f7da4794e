// Package twilio is the way to Twilio's API: one pool of connections under the
// twilio-go client, which has no context, no base URL and no say in when a request
// leaves. A Call adds these for one request, and tells afterwards whether any of it
// left at all, which is what decides if a failed send may be repeated.
package twilio

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/twilio/twilio-go/client"
)

// maxAnswer bounds an answer; a page of two hundred long texts is half of it.
const maxAnswer = 2 << 20

// Options describe an account at Twilio.
type Options struct {
	Account string        // "AC…"
	Token   string        // the auth token that sends
	BaseURL string        // in place of Twilio's hosts; empty: Twilio's
	Timeout time.Duration // of one call, connecting included
	Conns   int           // connections kept open
}

// A Client makes calls. It is safe for concurrent use.
type Client struct {
	o    Options
	base *url.URL // nil: Twilio's own
	pool *http.Transport
}

// New checks the options and makes a client. It connects to nothing.
func New(o Options) (*Client, error) {
	if o.Account == "" || o.Token == "" {
		return nil, errors.New("twilio: account or token is missing")
	}
	if o.Timeout <= 0 {
		return nil, errors.New("twilio: the timeout must be positive")
	}
	c := &Client{o: o}
	if o.BaseURL != "" {
		u, err := url.Parse(o.BaseURL)
		if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			return nil, errors.New("twilio: the base URL is not one")
		}
		c.base = u
	}
	dialer := &net.Dialer{Timeout: o.Timeout}
	// HTTP/1 only: a connection then carries one request at a time, so that the first
	// byte written after the request got its connection is that request's.
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	c.pool = &http.Transport{
		Proxy:     http.ProxyFromEnvironment,
		Protocols: protocols,
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := dialer.DialContext(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			return &gatedConn{Conn: conn}, nil
		},
		MaxIdleConnsPerHost: max(1, o.Conns),
		IdleConnTimeout:     30 * time.Second, // shorter than Twilio's side keeps them
	}
	return c, nil
}

// Timeout is how long one call may take.
func (c *Client) Timeout() time.Duration { return c.o.Timeout }

// Close closes the connections that are idle.
func (c *Client) Close() { c.pool.CloseIdleConnections() }

// A Call is one request's way out; it is the http.RoundTripper under a twilio-go
// client, made by Client.Call and used once.
type Call struct {
	client *Client
	ctx    context.Context
	gate   func(context.Context) error
	shut   atomic.Pointer[error] // what the gate said
	left   atomic.Bool
	status atomic.Int32
}

// Call prepares one request. gate, which may be nil, is asked when the request has its
// connection and before its first byte is written; an error from it is the request's,
// and then nothing has left. The call waits for
// it even beyond its time, so it has to heed the context that it is given.
func (c *Client) Call(ctx context.Context, gate func(context.Context) error) *Call {
	return &Call{client: c, ctx: ctx, gate: gate}
}

// Base is the client for twilio-go's services.
func (k *Call) Base() client.BaseClient {
	b := &client.Client{
		Credentials: client.NewCredentials(k.client.o.Account, k.client.o.Token),
		HTTPClient: &http.Client{
			Transport: k,
			// A redirected POST would be sent again.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
	b.SetAccountSid(k.client.o.Account)
	return b
}

// Left says whether any byte of the request may have left. If not, whatever error
// there was, Twilio knows nothing of it.
func (k *Call) Left() bool { return k.left.Load() }

// Status is the HTTP status of the answer, 0 without one.
func (k *Call) Status() int { return int(k.status.Load()) }

// RoundTrip implements http.RoundTripper. The answer is read whole: twilio-go does not
// close those that it takes for errors, which would keep connection and timer.
func (k *Call) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithTimeout(k.ctx, k.client.o.Timeout)
	defer cancel()
	trace := &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) {
		conn := info.Conn
		if t, ok := conn.(*tls.Conn); ok {
			conn = t.NetConn()
		}
		if g, ok := conn.(*gatedConn); ok {
			g.next.Store(&passage{ctx, k})
			return
		}
		k.left.Store(true) // a connection that we did not make: nothing can be promised
	}}
	req = req.Clone(httptrace.WithClientTrace(ctx, trace))
	// Without it the transport can't send the request a second time by itself.
	req.GetBody = nil
	if k.client.base != nil {
		req.URL.Scheme, req.URL.Host, req.Host = k.client.base.Scheme, k.client.base.Host, ""
		req.URL.Path = strings.TrimSuffix(k.client.base.Path, "/") + req.URL.Path
	}
	resp, err := k.client.pool.RoundTrip(req)
	if err != nil {
		if shut := k.shut.Load(); shut != nil {
			return nil, *shut
		}
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	k.status.Store(int32(resp.StatusCode))
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, fmt.Errorf("reading the answer: %w", err)
	}
	resp.Body = io.NopCloser(bytes.NewReader(answer))
	return resp, nil
}

// gatedConn is a connection whose next request has to pass a gate.
type gatedConn struct {
	net.Conn
	next atomic.Pointer[passage]
}

// A passage is one request on its way through the gate.
type passage struct {
	ctx  context.Context
	call *Call
}

// Write is the last point before the socket: the connection stands, TLS and all.
func (c *gatedConn) Write(p []byte) (int, error) {
	if pass := c.next.Swap(nil); pass != nil {
		if pass.call.gate != nil {
			if err := pass.call.gate(pass.ctx); err != nil {
				pass.call.shut.Store(&err)
				return 0, err
			}
		}
		// A request that was given up meanwhile (its time is over, say) must not go out
		// behind its caller's back. In this order Left errs only to the safe side.
		pass.call.left.Store(true)
		if err := pass.ctx.Err(); err != nil {
			pass.call.left.Store(false)
			return 0, fmt.Errorf("before the first byte: %w", err)
		}
	}
	return c.Conn.Write(p)
}
