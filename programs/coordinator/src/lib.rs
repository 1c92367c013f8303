use anchor_lang::prelude::*;
declare_id!("G7KidNxsM5kHQGzoYj4gRocyi1B7QGPieFyvKpmtHoNb");
