package leads

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"leadpipe/internal/outcome"
)

// A Token is what Meta says of the page access token.
type Token struct {
	Valid   bool
	Pages   []string  // names and ids of the pages whose leads it reads
	Expires time.Time // zero: never, or not known
	// Known says whether Meta told the permissions; that takes the app's secret.
	Known      bool
	ReadsLeads bool // leads_retrieval is among the permissions
}

// Check asks Meta about the token: which app and pages it is for, whether it is valid and
// until when, and whether it may read leads. Its errors are outcomes, as of judge.
// https://developers.facebook.com/docs/graph-api/reference/debug_token
func (g *Graph) Check(ctx context.Context, appSecret string) (Token, error) {
	var app, me struct {
		ID   string `json:"id"`
		Name string `json:"name"`
	}
	if err := g.ask(ctx, "me", url.Values{"fields": {"id,name"}}, g.token, &me); err != nil {
		return Token{}, err
	}
	t := Token{Valid: true}
	page := fmt.Sprintf("%s (%s)", me.Name, me.ID)
	if appSecret == "" {
		t.Pages = []string{page}
		return t, nil
	}
	if err := g.ask(ctx, "app", url.Values{"fields": {"id,name"}}, g.token, &app); err != nil {
		return Token{}, err
	}
	var debug struct {
		Data struct {
			Type      string   `json:"type"`
			Valid     bool     `json:"is_valid"`
			Expires   int64    `json:"expires_at"`
			DataUntil int64    `json:"data_access_expires_at"`
			Scopes    []string `json:"scopes"`
		} `json:"data"`
	}
	// Asked as the app itself: its id and its secret. So this also says whether they belong together.
	if err := g.ask(ctx, "debug_token", url.Values{"input_token": {g.token}}, app.ID+"|"+appSecret, &debug); err != nil {
		return Token{}, err
	}
	d := debug.Data
	t.Valid, t.Known, t.ReadsLeads = d.Valid, true, slices.Contains(d.Scopes, "leads_retrieval")
	for _, end := range []int64{d.Expires, d.DataUntil} {
		if at := time.Unix(end, 0).UTC(); end != 0 && (t.Expires.IsZero() || at.Before(t.Expires)) {
			t.Expires = at
		}
	}
	if d.Type == "PAGE" {
		t.Pages = []string{page}
		return t, nil
	}
	// A user or a system user: the pages that it has a role on.
	var accounts struct {
		Data []struct {
			ID   string `json:"id"`
			Name string `json:"name"`
		} `json:"data"`
	}
	if err := g.ask(ctx, "me/accounts", url.Values{"fields": {"id,name"}, "limit": {"100"}}, g.token, &accounts); err != nil {
		return Token{}, err
	}
	for _, a := range accounts.Data {
		t.Pages = append(t.Pages, fmt.Sprintf("%s (%s)", a.Name, a.ID))
	}
	return t, nil
}

// ask makes one call. None of what Graph says in words is in its errors, which may quote
// the token.
func (g *Graph) ask(ctx context.Context, path string, query url.Values, token string, into any) error {
	resp, body, err := g.get(ctx, path, query, token)
	if err != nil {
		return err
	}
	var answer struct {
		Error struct {
			Message string `json:"message"`
			Code    int    `json:"code"`
		} `json:"error"`
	}
	if json.Unmarshal(body, &answer) != nil && resp.StatusCode == http.StatusOK {
		return outcome.Temporary(outcome.Malformed, errors.New("no readable answer of Graph's"))
	}
	if resp.StatusCode != http.StatusOK || answer.Error.Code != 0 {
		kind, reason, advice := judge(resp.StatusCode, answer.Error.Code, answer.Error.Message)
		return &outcome.Error{Kind: kind, Reason: reason, Err: errors.New(advice + " (code " + strconv.Itoa(answer.Error.Code) + ")")}
	}
	if err := json.Unmarshal(body, into); err != nil {
		return outcome.Temporary(outcome.Malformed, errors.New("no readable answer of Graph's"))
	}
	return nil
}
