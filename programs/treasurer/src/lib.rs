use anchor_lang::prelude::*;
declare_id!("6aE5ZjrM2mxKZMkdWwKJq6HAThjCy3vvBedea1eLexYR");
